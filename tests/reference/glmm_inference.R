# Reference values for tests, marginal means and quality of generalised fits: lme4, car, emmeans, performance of Debian 12.
# Run as: Rscript glmm_inference.R FOLDER_WITH_CSV OUT.json   (the csv files are those of ../shared/reference/data)
suppressPackageStartupMessages({library(lme4); library(car); library(emmeans); library(performance); library(jsonlite)})
arguments <- commandArgs(TRUE)
read <- function(name) {
  frame <- read.csv(file.path(arguments[1], paste0(name, ".csv")))
  side <- fromJSON(file.path(arguments[1], paste0(name, ".json")))$columns
  for (column in names(side))
    if (side[[column]]$type == "factor") frame[[column]] <- factor(frame[[column]], levels = side[[column]]$levels)
  frame
}
tight <- glmerControl(optimizer = "bobyqa", tolPwrss = 1e-13, optCtrl = list(rhoend = 1e-9, maxfun = 1e5),
                      check.conv.grad = "ignore", check.conv.hess = "ignore")
estimate <- function(formula, data, family) suppressWarnings(do.call(glmer, list(formula, data, family = family, control = tight)))
means <- function(grid) { s <- as.data.frame(summary(grid, infer = c(TRUE, FALSE))); list(mean = s[[attr(summary(grid), "estName")]],
  se = s$SE, lower = s$asymp.LCL, upper = s$asymp.UCL) }
pairwise <- function(grid) { s <- as.data.frame(summary(pairs(grid), infer = c(TRUE, TRUE))); list(labels = as.character(s$contrast),
  estimate = s[[2]], se = s$SE, z = s$z.ratio, p = s$p.value, lower = s$asymp.LCL, upper = s$asymp.UCL) }
table_of <- function(a) { a <- a[rownames(a) != "(Intercept)", , drop = FALSE]; list(terms = rownames(a), chisq = a$Chisq, df = a$Df) }
cases <- list(
  list(name = "cbpp", data = "cbpp", formula = cbind(incidence, size - incidence) ~ period + (1 | herd),
       small = cbind(incidence, size - incidence) ~ 1 + (1 | herd), family = "binomial", factor = "period",
       hypothesis = c("period2 = period3", "period4 = -1")),
  list(name = "contraception", data = "Contraception", formula = use ~ age * urban + livch + (1 | district),
       small = use ~ age + urban + (1 | district), family = "binomial", factor = "livch", hypothesis = c("livch1 = livch2", "age = 0.01")),
  list(name = "counts", data = "cbpp", formula = incidence ~ period + offset(log(size)) + (1 | herd),
       small = incidence ~ 1 + offset(log(size)) + (1 | herd), family = "poisson", factor = "period",
       hypothesis = c("period2 = period3", "period4 = -1")))
options(digits = 15)
out <- lapply(cases, function(case) {
  data <- read(case$data)
  assign("frame", data, globalenv())
  fit <- estimate(case$formula, quote(frame), case$family)
  small <- estimate(case$small, quote(frame), case$family)
  summed <- data
  for (column in names(data)) if (is.factor(data[[column]]) && nlevels(data[[column]]) < 10) contrasts(summed[[column]]) <- contr.sum
  assign("summed", summed, globalenv())
  fit_sum <- estimate(case$formula, quote(summed), case$family)
  lrt <- anova(small, fit)
  grid <- emmeans(fit, case$factor)
  hypothesis <- linearHypothesis(fit, case$hypothesis, test = "Chisq")
  i <- suppressWarnings(icc(fit)); r <- suppressWarnings(r2_nakagawa(fit))
  list(name = case$name, dataset = case$data, formula = deparse1(case$formula), small = deparse1(case$small),
    family = case$family, factor = case$factor,
    loglik = as.numeric(logLik(fit)), lrt = list(chisq = lrt$Chisq[2], df = lrt$Df[2], p = lrt[["Pr(>Chisq)"]][2]),
    type2 = table_of(Anova(fit, type = 2)), type3 = table_of(Anova(fit_sum, type = 3)),
    hypothesis = list(text = case$hypothesis, chisq = hypothesis$Chisq[2], p = hypothesis[["Pr(>Chisq)"]][2]),
    link = means(grid), response = means(emmeans(fit, case$factor, type = "response")), pairs_link = pairwise(grid),
    pairs_response = pairwise(emmeans(fit, case$factor, type = "response")),
    icc = list(adjusted = i$ICC_adjusted, unadjusted = i$ICC_unadjusted),
    r2 = list(conditional = unname(r$R2_conditional), marginal = unname(r$R2_marginal)),
    residuals = list(deviance = head(unname(resid(fit, "deviance")), 6), pearson = head(unname(resid(fit, "pearson")), 6)),
    profile = if (case$name == "cbpp") { p <- suppressWarnings(suppressMessages(confint(fit, method = "profile", quiet = TRUE)))
                list(names = rownames(p), lower = unname(p[, 1]), upper = unname(p[, 2])) })
})
write_json(out, arguments[2], digits = 12, auto_unbox = TRUE, na = "null", null = "null", pretty = TRUE)
