# The models of the seed `mixed wage tenure married || occupation:` by lme4, which maximises the same likelihood as Stata.
#
#     Rscript tests/reference/nlsw88.R ../shared/data/stata/nlsw88.csv > tests/reference/nlsw88.json
suppressMessages({library(lme4); library(jsonlite)})
data <- read.csv(commandArgs(TRUE)[1])
data <- data[data$occupation != "" & !is.na(data$tenure), ]
data$married <- as.integer(data$married == "Married")
control <- lmerControl("bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5), calc.derivs = FALSE,
                       check.conv.singular = "ignore")
terms <- list(
  "|| occupation:" = "(1 | occupation)",
  "|| occupation: tenure, nocons" = "(0 + tenure | occupation)",
  "|| occupation: tenure" = "(tenure || occupation)",
  "|| occupation: tenure, cov(uns)" = "(tenure | occupation)",
  "|| _all: R.age || occupation:" = "(1 | age) + (1 | occupation)",
  "|| _all: R.industry || occupation:" = "(1 | industry) + (1 | occupation)"
)
found <- lapply(terms, function(term) {
  rows <- if (grepl("industry", term)) data[data$industry != "", ] else data
  m <- lmer(as.formula(paste("wage ~ tenure + married +", term)), rows, REML = FALSE, control = control)
  vc <- as.data.frame(VarCorr(m))
  list(term = term, rows = nobs(m), loglik = as.numeric(logLik(m)), fixef = unname(fixef(m)),
       se = unname(sqrt(diag(as.matrix(vcov(m))))), groups = vc$grp[is.na(vc$var2)], variances = vc$vcov[is.na(vc$var2)],
       covariance = vc$vcov[!is.na(vc$var2)])
})
cat(toJSON(list(lme4 = as.character(packageVersion("lme4")), models = found), digits = 10, auto_unbox = TRUE, pretty = TRUE), "\n")
