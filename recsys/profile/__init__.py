"""A session dataset in pictures."""
