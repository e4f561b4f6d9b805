"""Training and serving on SageMaker: the training container, the jobs, the pipeline and the endpoint.

The container half (`layout`, `container`, `fitting`) runs inside SageMaker and asks nothing of AWS; the other half
makes requests. Jobs are plain boto3 requests, because a request is what a training job, a tuning job and a step of a
pipeline have in common, and because the SDK's ModelTrainer simulates IAM policies before each. The SDK (v3) puts the
pipeline together, where its references between steps and its checks are worth having.
"""
