# Reference values for residual structures, by nlme. Run: Rscript tests/reference/residuals.R > tests/reference/residuals.json
suppressMessages(library(nlme))
args <- list(Orthodont = as.data.frame(Orthodont), Ovary = as.data.frame(Ovary))
Ortho <- args$Orthodont
Ortho$Sex <- factor(as.character(Ortho$Sex), levels = c("Male", "Female"))  # as in the package
Ortho$Subject <- factor(as.character(Ortho$Subject))
Ovary <- args$Ovary
Ovary$s <- sin(2 * pi * Ovary$Time); Ovary$c <- cos(2 * pi * Ovary$Time)
Ovary$Mare <- factor(as.character(Ovary$Mare))
one <- function(fit) {
  own <- if (inherits(fit, "lme")) fixef(fit) else coef(fit)
  # gls by ML inflates its vcov by n / (n - p); lme does not
  N <- fit$dims$N
  V <- if (inherits(fit, "lme")) fit$varFix else vcov(fit) * (if (fit$method == "ML") (N - fit$dims$p) / N else 1)
  st <- fit$modelStruct
  out <- list(loglik = as.numeric(logLik(fit)), beta = unname(own), se = unname(sqrt(diag(V))), sigma = fit$sigma)
  if (!is.null(st$varStruct))                               # nlme chooses its own reference level
    out$strata <- unname(fit$sigma * coef(st$varStruct, unconstrained = FALSE, allCoef = TRUE)[c("Male", "Female")])
  if (!is.null(st$corStruct)) out$rho <- unname(coef(st$corStruct, unconstrained = FALSE))
  if (inherits(fit, "lme")) out$sd <- unname(as.numeric(VarCorr(fit)[rownames(VarCorr(fit)) != "Residual", "StdDev"]))
  out$normalized <- unname(as.numeric(residuals(fit, type = "normalized"))[1:6])
  out$pearson <- unname(as.numeric(residuals(fit, type = "pearson"))[1:6])
  out
}
ctl <- lmeControl(opt = "optim", msMaxIter = 500, tolerance = 1e-10, msTol = 1e-12, reltol = 1e-14, niterEM = 50)
gctl <- glsControl(opt = "optim", tolerance = 1e-10, msTol = 1e-12, maxIter = 500, msMaxIter = 500)
res <- list()
for (method in c("REML", "ML")) {
  add <- function(name, fit) res[[paste0(name, "_", tolower(method))]] <<- one(fit)
  add("by_sex", lme(distance ~ age * Sex, Ortho, ~ 1 | Subject, weights = varIdent(form = ~ 1 | Sex), method = method, control = ctl))
  add("by_sex_slopes", lme(distance ~ age * Sex, Ortho, ~ age | Subject, weights = varIdent(form = ~ 1 | Sex), method = method, control = ctl))
  add("ar1", lme(distance ~ age * Sex, Ortho, ~ 1 | Subject, correlation = corAR1(form = ~ 1 | Subject), method = method, control = ctl))
  add("ar1_by_sex", lme(distance ~ age * Sex, Ortho, ~ 1 | Subject, correlation = corAR1(form = ~ 1 | Subject), weights = varIdent(form = ~ 1 | Sex), method = method, control = ctl))
  add("exchangeable", gls(distance ~ age * Sex, Ortho, correlation = corCompSymm(form = ~ 1 | Subject), method = method, control = gctl))
  add("exchangeable_by_sex", gls(distance ~ age * Sex, Ortho, correlation = corCompSymm(form = ~ 1 | Subject), weights = varIdent(form = ~ 1 | Sex), method = method, control = gctl))
  add("exchangeable_slope", lme(distance ~ age * Sex, Ortho, ~ 0 + age | Subject, correlation = corCompSymm(form = ~ 1 | Subject), method = method, control = ctl))
  add("ovary_ar1", lme(follicles ~ s + c, Ovary, list(Mare = pdDiag(~ s)), correlation = corAR1(form = ~ 1 | Mare), method = method, control = ctl))
  add("ovary_gls", gls(follicles ~ s + c, Ovary, correlation = corAR1(form = ~ 1 | Mare), method = method, control = gctl))
}
json <- function(x) if (is.list(x)) paste0("{", paste0("\"", names(x), "\": ", vapply(x, json, ""), collapse = ",\n "), "}") else
  paste0("[", paste(format(x, digits = 15, scientific = TRUE, trim = TRUE), collapse = ", "), "]")
ov <- Ovary
cat(json(c(res, list(ovary_mare = as.numeric(as.character(ov$Mare)), ovary_s = ov$s, ovary_c = ov$c, ovary_follicles = ov$follicles))), "\n")
