"""The synchronous client. All files but io.py and upload.py are generated from _async: see generate.py."""
