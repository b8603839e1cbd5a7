"""The page: one file a tab. A tab turns widgets into `GenerationParams`; the page watches jobs through the routes.

No gr.State, no generators, no streaming: a page holds no connection open, so any number of tabs stays alive.
`page.build` makes the Blocks, `page.head` what every delivery of the page carries in its <head>.
"""
