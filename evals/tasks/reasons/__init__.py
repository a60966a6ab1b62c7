"""Which reasons do transcripts give for what was done?"""
