#!/usr/bin/python
# -*- coding: iso-8859-2 -*-
name = "Łódź"
