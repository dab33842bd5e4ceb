# Null distributions of (restricted) likelihood ratios of one variance component by RLRsim: the statistic, the p-value,
# and quantiles of the simulated null, for tests/frequentist/test_likelihood_ratio.py.
# Run: Rscript tests/reference/exact_lrt.R > tests/reference/exact_lrt.json   (R 4.2, lme4, RLRsim, jsonlite)
suppressMessages({library(lme4); library(RLRsim); library(jsonlite)})
sizes <- c(4, 4, 5, 6, 8, 3, 7, 5)
small <- data.frame(g = factor(rep(seq_along(sizes), sizes)), x = sin(seq_len(sum(sizes))))
small$y <- c(0.6, -0.7, 0.2, 0.9, -0.3, -0.8, 0.1, 0.4)[as.integer(small$g)] + 0.3 * small$x + sin(17 * seq_len(nrow(small))^1.5 + 1)
cases <- list(
  dyestuff = list(formula = Yield ~ 1 + (1 | Batch), data = Dyestuff),
  small = list(formula = y ~ x + (1 | g), data = small)
)
out <- lapply(cases, function(case) {
  reml <- lmer(case$formula, case$data)
  ml <- lmer(case$formula, case$data, REML = FALSE)
  null <- lm(nobars(case$formula), case$data)
  probabilities <- c(0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
  set.seed(1); exact <- exactRLRT(reml, nsim = 1e5)
  set.seed(1); full <- exactLRT(ml, null, nsim = 1e5)
  list(
    formula = paste(deparse(case$formula), collapse = ""),
    reml = list(statistic = unname(exact$statistic), p = exact$p.value,
                quantiles = unname(quantile(exact$sample, probabilities)), zero = mean(exact$sample < 1e-9)),
    ml = list(statistic = unname(full$statistic), p = full$p.value,
              quantiles = unname(quantile(full$sample, probabilities)), zero = mean(full$sample < 1e-9))
  )
})
cat(toJSON(list(nsim = 1e5, probabilities = c(0.6, 0.7, 0.8, 0.9, 0.95, 0.99), cases = out,
                small = list(g = as.character(small$g), x = small$x, y = small$y)), digits = 10, auto_unbox = TRUE, pretty = TRUE))
