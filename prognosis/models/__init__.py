"""Prognosis models: predictors to numbers, ridge Cox and ridge logistic regression, and the JSON document that holds a fitted one."""
