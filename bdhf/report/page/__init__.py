"""What every page is made of: style, drawings, sections, numbers, output."""
