"""The native routes: jobs, models, pictures, status. JSON in, typed JSON out, every error in one form.

`{"error": class, "message": what happened, "advice": what to do}`, with the status that `webui.errors` names.
"""
