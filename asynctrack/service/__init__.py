"""The tracking service: the low-level verbs on experiments and runs, in a blocking and an awaitable face.

`Verbs` is the one implementation. `MLflowService` and `MlflowClient` drive it in the calling thread,
`AsyncMLflowService` is it.
"""
