"""Bytes to items: paths and patterns in; documents, chats and rejects with file and line out."""
