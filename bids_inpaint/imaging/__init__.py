"""Arrays to arrays: no files of users, no Nipype."""
