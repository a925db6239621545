"""A page in the browser: drop a picture, see the concepts behind the answer, correct them, take the corrections along.

upload -> check -> features (once) -> explanation -> the page -> corrections -> CSV -> train data.concepts=FILE
"""
