-- What a run reads: documents of a project, cut into passages, found by full-text search.

create table corpus (
  id uuid primary key,
  project_id uuid not null references project,
  name text not null,
  digest text,
  created_at timestamptz not null default clock_timestamp(),
  unique (id, project_id)
);

create index corpus_by_project on corpus (project_id, created_at);

-- The words of a text: ASCII punctuation becomes space, so that `reply.code()`, `some-option` and `a/b` are found by
-- their parts (the parser would take them for host names and paths). Question and passage both go through it.
-- `translate` says the same and takes ten times as long.
create function corpus_words(p_text text) returns text
language sql immutable strict parallel safe
return regexp_replace(p_text, '[!-/:-@[-`{-~]', ' ', 'g');

-- The same, followed by the parts of names such as `additionalProperties`.
create function corpus_words_and_parts(p_text text) returns text
language sql immutable strict parallel safe
return corpus_words(p_text) || ' ' || corpus_words(regexp_replace(p_text, '([a-z0-9])([A-Z])', '\1 \2', 'g'));

-- The word that all passages of a corpus share and no text has: one GIN index then serves every tenant, and a search
-- in one corpus costs nothing for the others.
create function corpus_mark(p_corpus uuid) returns text
language sql immutable strict parallel safe
return 'corpus ' || p_corpus;

-- Weights: A title, B heading, C prose and the path of the source, D everything, code included.
create function passage_search(p_corpus uuid, p_source text, p_title text, p_heading text, p_body text) returns tsvector
language sql immutable parallel safe
return array_to_tsvector(array[corpus_mark(p_corpus)])
  || setweight(to_tsvector('english', corpus_words(p_title)), 'A')
  || setweight(to_tsvector('english', corpus_words(coalesce(p_heading, ''))), 'B')
  || setweight(to_tsvector('english', corpus_words(
    p_source || ' ' || regexp_replace(p_body, '^```.*?^```', ' ', 'gw'))), 'C')
  || to_tsvector('english', corpus_words_and_parts(p_body));

create table passage (
  id uuid primary key,
  project_id uuid not null,
  corpus_id uuid not null,
  ordinal integer not null check (ordinal >= 0),
  source text not null,
  title text not null,
  heading text,
  body text not null,
  search tsvector not null generated always as (passage_search(corpus_id, source, title, heading, body)) stored,
  unique (corpus_id, source, ordinal),
  foreign key (corpus_id, project_id) references corpus (id, project_id) on delete cascade
);

create index passage_search on passage using gin (search);

grant select, insert, delete on corpus, passage to purser_app;
