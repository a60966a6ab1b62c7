"""Tool calls in the form of the model's own chat template: does training cost them?"""
