"""Pipeline configs that ship with the project."""
