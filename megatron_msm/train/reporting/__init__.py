"""What a run tells: steps in; metric lines, progress, tracker records and traces out."""
