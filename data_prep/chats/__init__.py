"""Conversations to rows and loss masks: messages and a chat template in; ids and masks out."""
