"""The reward `code`: does a program do what its tests ask for?"""
