"""Has what is photographed, or what the model makes of it, become different from the model's reference photos?"""
