"""The tracking service: the low-level verbs on experiments and runs, blocking or awaited.

Each verb is written once, as a function whose first argument is a `session.Session`: in `experiments`, `runs`,
`events` and `artifacts`. `binding` makes it a method of the three classes: `MLflowService` and `MlflowClient` block the
calling thread, `AsyncMLflowService` is awaited.
"""
