# Reference values for model_quality, diagnostics and tidy: lme4, performance, broom.mixed, car, nlme of Debian 12.
# Run as: Rscript quality.R FOLDER_WITH_CSV OUT.json   (the csv files are those of ../shared/reference/data)
suppressPackageStartupMessages({library(lme4); library(performance); library(broom.mixed); library(car); library(jsonlite)})
arguments <- commandArgs(TRUE)
folder <- arguments[1]
factors <- list(sleepstudy = "Subject", nlschools = c("class", "COMB"), Penicillin = c("plate", "sample"),
                Pastes = c("batch", "cask", "sample"), Orthodont = c("Subject", "Sex"), Dyestuff2 = "Batch")
read <- function(name) {
  frame <- read.csv(file.path(folder, paste0(name, ".csv")))
  side <- fromJSON(file.path(folder, paste0(name, ".json")))$columns
  for (column in names(side))
    if (side[[column]]$type == "factor") frame[[column]] <- factor(frame[[column]], levels = side[[column]]$levels)
  frame
}
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-11, maxfun = 1e5),
                     check.conv.grad = "ignore", check.conv.hess = "ignore")
cases <- list(
  list("sleepstudy", Reaction ~ Days + (Days | Subject), TRUE),
  list("sleepstudy", Reaction ~ Days + (Days | Subject), FALSE),
  list("nlschools", lang ~ IQ + SES + GS + COMB + (IQ | class), TRUE),
  list("Penicillin", diameter ~ 1 + (1 | plate) + (1 | sample), TRUE),
  list("Pastes", strength ~ 1 + (1 | batch / cask), TRUE),
  list("Orthodont", distance ~ age * Sex + (age | Subject), TRUE))
options(digits = 15)
out <- lapply(cases, function(case) {
  data <- read(case[[1]])
  assign("frame", data, globalenv())  # influence() evaluates the call of the fit again
  fit <- suppressWarnings(do.call(lmer, list(case[[2]], quote(frame), REML = case[[3]], control = tight)))
  i <- suppressWarnings(icc(fit)); r <- suppressWarnings(r2_nakagawa(fit))
  v <- insight::get_variance(fit)
  terms <- attr(terms(fit), "term.labels")
  group <- intersect(names(getME(fit, "flist")), names(data))[1]
  deleted <- if (nrow(data) < 300) influence(fit, group) else NULL
  list(dataset = case[[1]], formula = deparse1(case[[2]]), reml = case[[3]], theta = getME(fit, "theta"), sigma = sigma(fit),
    icc = list(adjusted = i$ICC_adjusted, unadjusted = i$ICC_unadjusted),
    r2 = list(conditional = unname(r$R2_conditional), marginal = unname(r$R2_marginal)),
    variance = list(fixed = v$var.fixed, random = v$var.random, residual = v$var.residual),
    aicc = performance_aicc(fit),
    vif = if (length(terms) > 1) { t <- vif(fit); if (is.matrix(t)) as.list(setNames(t[, 1], rownames(t))) else as.list(t) } else NULL,
    pearson = head(unname(resid(fit, "pearson", scaled = TRUE)), 8),
    standardized = head(unname(resid(fit, "pearson", scaled = TRUE) / sqrt(1 - hatvalues(fit))), 8),
    marginal = head(unname(getME(fit, "y") - getME(fit, "X") %*% fixef(fit))[, 1], 8),
    hat = head(unname(hatvalues(fit)), 8), hat_sum = sum(hatvalues(fit)),
    cooks = head(unname(cooks.distance(fit)), 8),
    conditional_loglik = sum(dnorm(getME(fit, "y"), fitted(fit), sigma(fit), log = TRUE)),
    group_deletion = if (!is.null(deleted)) list(group = group, levels = rownames(deleted[[paste0("fixed.effects[-", group, "]")]]),
        fixed = unname(deleted[[paste0("fixed.effects[-", group, "]")]]), cooks = unname(cooks.distance(deleted))) else NULL,
    tidy = as.data.frame(tidy(fit, conf.int = TRUE)), glance = as.data.frame(glance(fit)),
    augment = head(as.data.frame(augment(fit, data)), 5), augment_columns = names(augment(fit, data)))
})
write_json(out, arguments[2], digits = 12, auto_unbox = TRUE, na = "null", null = "null", pretty = TRUE)
