"""Documents to rows: the preparation behind `msm prep docs`."""
