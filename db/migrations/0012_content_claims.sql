-- How often garbage collection has taken content to delete it. A step that stores content compares two readings, and looks for
-- its content again only if something was taken in between. A sequence: everybody sees at once that it was counted, and
-- nothing takes that back.
CREATE SEQUENCE app.content_claims;
