"""The samplers, a file a family. Each is a plain function that reads like its paper.

`sampler(model, x, sigmas, report, ...) -> x`: `model(x, sigma)` is the clean picture expected in x (B, C, H, W) at that
noise level, `sigmas` the descending levels (n + 1 floats), `report` is told of every finished step. A method that draws
noise takes `noise(sigma, sigma_next)`, a method that can churn takes a `Churn`; what else can be chosen is a keyword.
"""
