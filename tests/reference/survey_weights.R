# Reference values for survey weights as powers of the rows' densities, by glmmTMB of Debian 12, whose weights are that
# for every family. Run as: Rscript survey_weights.R FOLDER_WITH_CSV OUT.json (the csv files of ../shared/reference/data)
suppressPackageStartupMessages({library(glmmTMB); library(jsonlite)})
arguments <- commandArgs(TRUE)
read <- function(name) {
  frame <- read.csv(file.path(arguments[1], paste0(name, ".csv")))
  w <- 1 + (seq_len(nrow(frame)) * 7) %% 11
  frame$w <- w * nrow(frame) / sum(w)
  frame
}
numbers <- function(fit, terms) {
  table <- summary(fit)$coefficients$cond
  sd <- unlist(lapply(VarCorr(fit)$cond, function(v) attr(v, "stddev")), use.names = FALSE)
  list(loglik = as.numeric(logLik(fit)), fixef = unname(table[, 1]), se = unname(table[, 2]), sd = sd, sigma = sigma(fit))
}
tight <- glmmTMBControl(optCtrl = list(iter.max = 1e4, eval.max = 1e4, rel.tol = 1e-14, x.tol = 1e-12))
sleep <- read("sleepstudy")
women <- read("Contraception")
women$y <- as.integer(women$use == "Y")
out <- list(
  gaussian = numbers(glmmTMB(Reaction ~ Days + diag(1 + Days | Subject), sleep, weights = w, control = tight)),
  bernoulli = numbers(suppressWarnings(glmmTMB(y ~ age + urban + (1 | district), women, family = binomial, weights = w,
                                               control = tight))))
write(toJSON(out, digits = 12, auto_unbox = TRUE, pretty = TRUE), arguments[2])
