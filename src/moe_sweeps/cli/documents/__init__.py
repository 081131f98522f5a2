"""What commands print with --json: one document each, whose fields are declared here and nowhere else.

document    the envelope, and how a document becomes JSON
state, plan, why, explain, knobs, tables, judgement, refusal    one kind of document each
page        docs/json.md, written from the declarations
"""
