# Reference values for tests: profile likelihoods of correlated group effects and of a family's own parameter.
# glmmTMB through TMB::tmbprofile; versions are written out.
# Run as: Rscript glmm_profiles.R FOLDER_WITH_CSV OUT.json   (the csv files are those of ../shared/reference/data)
suppressPackageStartupMessages({library(glmmTMB); library(jsonlite)})
arguments <- commandArgs(TRUE)
read <- function(name) {
  frame <- read.csv(file.path(arguments[1], paste0(name, ".csv")))
  side <- fromJSON(file.path(arguments[1], paste0(name, ".json")))$columns
  for (column in names(side))
    if (side[[column]]$type == "factor") frame[[column]] <- factor(frame[[column]], levels = side[[column]]$levels)
  frame
}
women <- read("Contraception")
women$city <- as.numeric(women$urban == levels(women$urban)[2])
women$y <- as.numeric(women$use == levels(women$use)[2])
sleep <- read("sleepstudy")
sleep$count <- round(exp(sleep$Reaction / 90))
sleep$ratio <- sleep$Reaction / 250
sleep$share <- sleep$Reaction / (sleep$Reaction + 200)
# Theta of glmmTMB: logarithms of SDs, then r / sqrt(1 - r^2) of one correlation; dispersion: logarithm of the parameter.
natural <- function(x, is_corr) if (is_corr) x / sqrt(1 + x^2) else exp(x)
profiled <- function(formula, data, family, correlated) {
  fit <- glmmTMB(formula, data, family, control = glmmTMBControl(optCtrl = list(rel.tol = 1e-12, iter.max = 1000)))
  at <- names(fit$obj$par)
  theta <- which(at == "theta")
  rows <- lapply(which(at != "beta"), function(i) {
    unit <- as.numeric(seq_along(at) == i)
    curve <- TMB::tmbprofile(fit$obj, lincomb = unit, ystep = 0.1, ytol = 2.2, trace = FALSE)
    limits <- as.numeric(confint(curve, level = 0.95))
    is_corr <- correlated && length(theta) == 3 && i == theta[3]
    list(name = at[i], estimate = natural(fit$fit$par[[i]], is_corr), limits = natural(limits, is_corr))
  })
  list(loglik = as.numeric(logLik(fit)), rows = rows)
}
options(digits = 12)
out <- list(
  versions = list(R = R.version.string, glmmTMB = as.character(packageVersion("glmmTMB"))),
  contraception = profiled(y ~ age + city + (city | district), women, binomial(), TRUE),
  negativebinomial = profiled(count ~ Days + (1 | Subject), sleep, nbinom2(), FALSE),
  gamma = profiled(ratio ~ Days + (1 | Subject), sleep, Gamma("log"), FALSE),
  beta = profiled(share ~ Days + (1 | Subject), sleep, beta_family(), FALSE))
write_json(out, arguments[2], digits = 12, auto_unbox = TRUE, na = "null", null = "null", pretty = TRUE)
