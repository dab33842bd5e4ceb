"""What is packaged: titles, sources, licences and what each column means."""

from __future__ import annotations

from dataclasses import dataclass

R_DATA = "values published in the R package {package} ({licence})"
LME4 = R_DATA.format(package="lme4", licence="GPL-2 or later")
NLME = R_DATA.format(package="nlme", licence="GPL-2 or later")
DAVIES = "Davies & Goldsmith (1972), Statistical Methods in Research and Production, section {section}"


@dataclass(frozen=True)
class DataSet:
    """One packaged table.

    Parameters
    ----------
    name : str
        What `load` takes.
    title : str
        What it is, in one line.
    source : str
        Who measured it, or where it was first published.
    licence : str
        Where the values come from and under which licence that was published.
    columns : dict of str to str
        Column name to meaning, with units.

    Examples
    --------
    >>> DataSet("coins", "Two throws", "made up", "public domain", {"side": "side up"}).name
    'coins'
    """

    name: str
    title: str
    source: str
    licence: str
    columns: dict[str, str]


CATALOGUE = (
    DataSet(
        "nlschools",
        "Language scores of 2,287 pupils in 133 Dutch school classes",
        "Snijders & Bosker (1999), Multilevel Analysis; Venables & Ripley (2002), section 10.1",
        R_DATA.format(package="MASS", licence="GPL-2 or GPL-3"),
        {
            "lang": "score in a language test",
            "IQ": "verbal IQ",
            "class": "school class",
            "GS": "number of eighth-grade pupils in the class",
            "SES": "socio-economic status of the pupil's family",
            "COMB": "taught together with another grade: 1 yes, 0 no",
        },
    ),
    DataSet(
        "sleepstudy",
        "Reaction times of 18 people over ten days of little sleep",
        "Belenky et al. (2003), Journal of Sleep Research 12, 1-12",
        LME4,
        {
            "Reaction": "mean reaction time of the day (ms)",
            "Days": "days in the study; sleep was short after day 2",
            "Subject": "person",
        },
    ),
    DataSet(
        "InstEval",
        "73,421 ratings of lectures by students of ETH Zurich",
        "Student survey at ETH Zurich, anonymised; by Martin Maechler",
        LME4,
        {
            "s": "student",
            "d": "lecturer",
            "studage": "semesters the student has been enrolled",
            "lectage": "semesters since the lecture, in classes 1 to 6",
            "service": "lecture for another department than the lecturer's own: 1 yes, 0 no",
            "dept": "department of the lecture, by a random code",
            "y": "rating, from 1 (poor) to 5 (very good)",
            "lectage_num": "lectage as a number (added here)",
        },
    ),
    DataSet(
        "nlswork",
        "Wages of 4,711 young women in the United States, 1968 to 1988",
        "National Longitudinal Survey of Young Women, US Bureau of Labor Statistics; as used in Stata's manuals",
        R_DATA.format(package="sampleSelection", licence="GPL-2 or later") + "; the survey is public",
        {
            "idcode": "woman",
            "year": "year of the interview, 19..",
            "birth_yr": "year of birth, 19..",
            "age": "age (years)",
            "race": "1 white, 2 black, 3 other",
            "msp": "married, husband present: 1 yes, 0 no",
            "nev_mar": "never married: 1 yes, 0 no",
            "grade": "years of schooling completed",
            "collgrad": "college graduate: 1 yes, 0 no",
            "not_smsa": "lives outside a metropolitan area: 1 yes, 0 no",
            "c_city": "lives in a central city: 1 yes, 0 no",
            "south": "lives in the south: 1 yes, 0 no",
            "ind_code": "industry, by code",
            "occ_code": "occupation, by code",
            "union": "member of a union: 1 yes, 0 no",
            "wks_ue": "weeks unemployed in the last year",
            "ttl_exp": "work experience (years)",
            "tenure": "time in the present job (years)",
            "hours": "usual hours of work in a week",
            "wks_work": "weeks worked in the last year",
            "ln_wage": "logarithm of the hourly wage, deflated",
        },
    ),
    DataSet(
        "nlsw88",
        "Wages and occupations of 2,246 women in the United States in 1988",
        "National Longitudinal Survey of Mature and Young Women, US Bureau of Labor Statistics; ships with Stata",
        "a work of the US government: the survey is public; values as in Stata's `sysuse nlsw88`",
        {
            "idcode": "woman",
            "age": "age (years)",
            "race": "Black, White or Other",
            "married": "Married or Single",
            "never_married": "whether she was ever married",
            "grade": "years of schooling completed",
            "collgrad": "whether she is a college graduate",
            "south": "whether she lives in the south",
            "smsa": "whether she lives in a metropolitan area (SMSA)",
            "c_city": "whether she lives in a central city",
            "industry": "one of 12 industries",
            "occupation": "one of 13 occupations",
            "union": "Union or Nonunion",
            "wage": "hourly wage (US dollars)",
            "hours": "usual hours of work in a week",
            "ttl_exp": "work experience (years)",
            "tenure": "time in the present job (years)",
        },
    ),
    DataSet(
        "cbpp",
        "A lung disease of cattle in 15 Ethiopian herds",
        "Lesnoff et al. (2004), Preventive Veterinary Medicine 64, 27-40",
        LME4,
        {
            "herd": "herd",
            "incidence": "new cases in the period",
            "size": "cattle in the herd at the start of the period",
            "period": "quarter, 1 to 4",
            "prop": "incidence / size (added here)",
        },
    ),
    DataSet(
        "Penicillin",
        "Six samples of penicillin on each of 24 plates",
        DAVIES.format(section="6.6"),
        LME4,
        {"diameter": "diameter of the zone without growth (mm)", "plate": "plate", "sample": "sample of penicillin"},
    ),
    DataSet(
        "Pastes",
        "Strength of a paste, by batch and cask",
        DAVIES.format(section="6.5"),
        LME4,
        {
            "strength": "strength of the paste",
            "batch": "delivery",
            "cask": "cask within the delivery: labels repeat between deliveries",
            "sample": "batch and cask together",
        },
    ),
    DataSet(
        "Dyestuff",
        "Yield of a dye from six batches",
        DAVIES.format(section="6.4"),
        LME4,
        {"Batch": "batch of the intermediate product", "Yield": "yield (grams of standard colour)"},
    ),
    DataSet(
        "Dyestuff2",
        "Made-up yields whose batches differ less than chance would have them",
        "Box & Tiao (1973), Bayesian Inference in Statistical Analysis, section 5.1.2",
        LME4,
        {"Batch": "batch", "Yield": "yield"},
    ),
    DataSet(
        "radon",
        "Radon in 919 homes of 85 counties of Minnesota",
        "Price, Nero & Gelman (1996), Health Physics 71, 922-936; Gelman & Hill (2007)",
        R_DATA.format(package="HLMdiag", licence="GPL-2"),
        {
            "log_radon": "logarithm of the radon activity (pCi/L)",
            "floor": "floor of the measurement: 0 basement, 1 first floor",
            "log_uranium": "logarithm of the county's soil uranium",
            "county": "county",
        },
    ),
    DataSet(
        "Machines",
        "Productivity of six workers on three machines",
        "Milliken & Johnson (1992), Analysis of Messy Data; Pinheiro & Bates (2000), appendix A.14",
        NLME,
        {"Worker": "worker", "Machine": "brand of machine", "score": "productivity, number and quality together"},
    ),
    DataSet(
        "Orthodont",
        "Growth of the jaw of 27 children, four visits each",
        "Potthoff & Roy (1964), Biometrika 51, 313-326; Pinheiro & Bates (2000), appendix A.17",
        NLME,
        {
            "distance": "pituitary to pterygomaxillary fissure (mm)",
            "age": "age (years)",
            "Subject": "child",
            "Sex": "sex",
        },
    ),
    DataSet(
        "Contraception",
        "Use of contraception by 1,934 women in 60 districts of Bangladesh",
        "Bangladesh Fertility Survey 1988; Steele, Diamond & Amin (1996), JRSS A 159, 289-299",
        R_DATA.format(package="mlmRev", licence="GPL-2 or later"),
        {
            "woman": "woman",
            "district": "district of residence",
            "use": "uses contraception: N no, Y yes",
            "livch": "living children: 0, 1, 2, 3+",
            "age": "age minus the mean age (years)",
            "urban": "lives in a town: Y yes, N no",
        },
    ),
    DataSet(
        "cces2016",
        "64,600 Americans after the election of 2016: their vote, where they live, who they are",
        "Cooperative Congressional Election Study 2016 (Ansolabehere & Schaffner), in the selection of S. Miller",
        R_DATA.format(package="stevedata", licence="GPL-2 or later"),
        {
            "trump": "says to have voted for Trump: 1 yes, 0 for somebody else; missing without a vote",
            "state": "state, by postal code",
            "age": "2016 minus the year of birth",
            "sex": "sex",
            "race": "race or ethnicity",
            "college": "has a college degree",
        },
    ),
    DataSet(
        "states2016",
        "The 50 states and the District of Columbia at the elections of 2012 and 2016",
        "US Census Bureau; Elections Project, George Mason University; Leip, Atlas of U.S. Presidential Elections",
        "values published in the R packages stevedata (GPL-2 or later), pscl (GPL-2) and dslabs (Artistic-2.0)",
        {
            "state": "state, by postal code",
            "region": "Census region",
            "college": "share of adults with a college degree",
            "turnout": "votes for President as a share of those eligible to vote, 2016",
            "obama2012": "Obama's share of the vote, 2012",
            "trump2016": "Trump's share of the vote, 2016",
        },
    ),
)
