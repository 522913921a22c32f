"""T and N stage from masks, features and a clinical table: fitted, judged with whole hospitals held out, and predicted."""
