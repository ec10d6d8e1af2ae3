# encoding: iso-8859-2
name = "Łódź"
