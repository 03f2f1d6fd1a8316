"""Click logs on disk: files of any format as blocks of rows for the event decoder."""
