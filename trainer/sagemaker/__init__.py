"""Training and serving on SageMaker: the training container, the jobs, the pipeline and the endpoint.

There are three groups of modules, by their dependencies:

- `layout`, `container`, `fitting` and `metric_lines` run in the training container and send no requests to AWS.
- `training`, `space` and `pipeline` describe jobs with SageMaker's SDK (`sdk`).
- `endpoint` and `models` use boto3. They also run in the trainer's image, as the pipeline's step `Deploy`. The image
  has no SDK, which would add 90 packages and 0.5 GB. The name of a resource is derived from the request that creates
  it, so that each request may be repeated. The SDK does not cover autoscaling.
"""
