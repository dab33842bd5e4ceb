"""What the compiled entries can do, and which argument of a handle is which."""

# operations of the factorisation (bayeslmm.likelihood.engine)
FACTORISE, SOLVE_HALF, SOLVE_OTHER_HALF, INVERT, SPREAD, GRAM, MIX, GATHER = range(8)

# operations of the model (bayeslmm.likelihood.model_entry)
PROFILE, EVALUATE, MEASURE, SEARCH = range(4)

# operations of the search coordinates (bayeslmm.likelihood.coordinates)
TO_THETA, PULL_THETA = range(2)

# arguments of the factorisation
TEMPLATES, RHS, B, ROOT, MIXING, FACTORS, OUT = range(7)

# arguments of the model, beside those: data and settings, scratch, point and gradient
GRAM_MATRIX, SETTINGS, INVERSE, THETA, THETA_SLOPE, POINT, SLOPE = range(7, 14)

# arguments of the search: inverse Hessian now and at the start, scratch, criterion by evaluation, journal
INVERSE_HESSIAN, INITIAL, SCRATCH, VALUES, JOURNAL = range(14, 19)
N_ARGUMENTS = 19

# places in the journal
EVALUATIONS, STOP, STATUS, TOLERANCE, TRUST = range(5)
