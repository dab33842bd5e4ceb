# Reference values for robust, anova (other contrasts, unbalanced cells) and marginal_means:
# lme4, lmerTest, pbkrtest, emmeans, clubSandwich of Debian 12.
# Run as: Rscript inference.R FOLDER_WITH_CSV OUT.json   (the csv files are those of ../shared/reference/data)
suppressPackageStartupMessages({library(lme4); library(lmerTest); library(emmeans); library(clubSandwich); library(jsonlite)})
emm_options(lmerTest.limit = 1e5, pbkrtest.limit = 1e5)
arguments <- commandArgs(TRUE)
read <- function(name) {
  frame <- read.csv(file.path(arguments[1], paste0(name, ".csv")))
  side <- fromJSON(file.path(arguments[1], paste0(name, ".json")))$columns
  for (column in names(side))
    if (side[[column]]$type == "factor") frame[[column]] <- factor(frame[[column]], levels = side[[column]]$levels)
  frame
}
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-11, maxfun = 1e5),
                     check.conv.grad = "ignore", check.conv.hess = "ignore")
options(digits = 15)
sandwich <- function(fit, cluster, tested) {
  se <- sapply(c("CR0", "CR1", "CR1p", "CR1S", "CR2"), function(type)
    sqrt(diag(as.matrix(vcovCR(fit, cluster = cluster, type = type)))), simplify = FALSE)
  V <- vcovCR(fit, cluster = cluster, type = "CR2")
  joint <- Wald_test(fit, constraints = constrain_zero(tested), vcov = V, test = "HTZ")
  list(se = se, df = coef_test(fit, V, test = "Satterthwaite")$df_Satt, tested = tested - 1,
       joint = c(joint$Fstat, joint$df_num, joint$df_denom, joint$p_val))
}
schools <- read("nlschools"); machines <- read("Machines"); orthodont <- read("Orthodont")
schools$size <- cut(schools$GS, c(0, 20, 27, 50), labels = c("small", "middle", "large"))
fit <- lmer(lang ~ IQ + SES + GS + COMB + (1 | class), schools, control = tight)
crossed <- lmer(lang ~ IQ + COMB * size + (1 | class), schools, control = tight)
summed <- lmer(lang ~ IQ + COMB * size + (1 | class), schools, control = tight,
               contrasts = list(COMB = "contr.sum", size = "contr.helmert"))
nested <- lmer(score ~ Machine + (1 | Worker / Machine), machines, control = tight)
growth <- lmer(distance ~ age * Sex + (1 | Subject), orthodont, control = tight)
means <- function(fit, specs, df, ...) {
  grid <- emmeans(fit, specs, lmer.df = df, ...)
  pairs <- as.data.frame(summary(pairs(grid), infer = TRUE))
  list(means = as.matrix(as.data.frame(grid)[c("emmean", "SE", "df", "lower.CL", "upper.CL")]),
       pairs = as.matrix(pairs[c("estimate", "SE", "df", "lower.CL", "upper.CL", "t.ratio", "p.value")]),
       holm = as.data.frame(pairs(grid, adjust = "holm"))$p.value)
}
table <- function(fit, type, ddf) {
  frame <- as.data.frame(anova(fit, type = type, ddf = ddf))
  list(terms = rownames(frame), values = as.matrix(frame))
}
out <- list(
  sandwich = sandwich(fit, schools$class, 3:5),
  anova = list(type1 = table(crossed, 1, "Satterthwaite"), type2 = table(crossed, 2, "Satterthwaite"),
               type3 = table(crossed, 3, "Satterthwaite"), type3_sum = table(summed, 3, "Satterthwaite"),
               type3_kr = table(crossed, 3, "Kenward-Roger")),
  means = list(machines_satterthwaite = means(nested, "Machine", "satterthwaite"),
               machines_kr = means(nested, "Machine", "kenward-roger"),
               schools_equal = means(crossed, "size", "satterthwaite"),
               schools_proportional = means(crossed, "size", "satterthwaite", weights = "proportional"),
               growth = means(growth, "Sex", "kenward-roger", at = list(age = 14))))
write_json(out, arguments[2], digits = NA, pretty = TRUE, auto_unbox = TRUE)
