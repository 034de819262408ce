"""Files that hold images or masks, opened with what anybody may send in mind."""
