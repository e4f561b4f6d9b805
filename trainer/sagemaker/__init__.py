"""Training and serving on SageMaker: the training container, the jobs, the pipeline and the endpoint.

Three groups of modules, by what they need:

- `layout`, `container`, `fitting` and `metric_lines` run inside of the training container and make no request to AWS.
- `training`, `space` and `pipeline` describe jobs with SageMaker's SDK, as its users know it (`sdk`).
- `endpoint` and `models` use boto3. They also run in the trainer's image, as the pipeline's step `Deploy`. It has
  no SDK, which would add 90 packages and 0.5 GB. Names follow from the content of a request, so that each may be made
  again, and autoscaling is not the SDK's business.
"""
