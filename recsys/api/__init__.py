"""The lookup API: lists out, clicks in, over HTTP."""
