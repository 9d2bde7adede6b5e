import type { Citation, Note } from '#contracts/tools.ts'
import { utf8Length } from '#domain/token-bound.ts'
import { citeAnswer, isNotFound } from './citations.ts'
import { CallFailed, defineAgent, fitsHistory, type FromSchema, type Kit, ToolFailed } from './kit.ts'
import {
  DEFAULT_BREADTH,
  MAX_CITATIONS,
  PASSAGES_PER_QUERY,
  PLAN_TOKENS,
  READ_TOKENS,
  researchPlan,
  WRITE_TOKENS,
} from './research-plan.ts'
import { planMessages, readMessages, writeMessages } from './research-prompts.ts'

const MAX_BREADTH = 6
const NOTES_PER_READING = 6
/** Ids are UUIDs. */
const MAX_ID_LENGTH = 36
/** A query that a model did not mean as an essay. */
const MAX_QUERY_LENGTH = 300
/** Longer ones are no sentences. With the next limit this keeps an output within a workflow history. */
const MAX_QUOTE_BYTES = 400

const inputSchema = {
  type: 'object',
  properties: {
    question: { type: 'string', minLength: 1, maxLength: 2000 },
    corpusId: { type: 'string', format: 'uuid', description: 'The documents to answer from.' },
    breadth: {
      type: 'integer',
      minimum: 1,
      maximum: MAX_BREADTH,
      default: DEFAULT_BREADTH,
      description: 'Most searches, each followed by one reading of what it found.',
    },
  },
  required: ['question', 'corpusId'],
  additionalProperties: false,
} as const

const notesSchema = {
  name: 'notes',
  schema: {
    type: 'object',
    properties: {
      notes: {
        type: 'array',
        description: 'sentences that help to answer the question; empty when there are none',
        maxItems: NOTES_PER_READING,
        items: {
          type: 'object',
          properties: {
            passage: { type: 'string', description: 'the id of the passage' },
            quote: { type: 'string', description: 'a sentence of the passage, verbatim' },
          },
          required: ['passage', 'quote'],
          additionalProperties: false,
        },
      },
    },
    required: ['notes'],
    additionalProperties: false,
  },
} as const

/** What a research run delivers. */
export interface ResearchOutput {
  readonly question: string
  readonly found: boolean
  /** `not found` when the sources do not support an answer; null while there is none yet. */
  readonly answer: string | null
  readonly citations: readonly Citation[]
  /** Parts of the work that failed while the rest went on, such as `read/2: routes_exhausted`. */
  readonly gaps: readonly string[]
  /** The run was stopped before its answer was written: these are the quotes found until then. */
  readonly partial?: true
}

type ResearchInput = FromSchema<typeof inputSchema>

/** One research in progress. What parallel readings find is kept by the query's index, whatever order they end in. */
interface Research extends ResearchInput {
  readonly kit: Kit
  readonly quotes: Map<number, readonly Citation[]>
  readonly gaps: string[]
}

/** Answers a question from the passages of a corpus, with citations that code has checked against them. */
export const research = defineAgent({
  name: 'research',
  description: 'Answers a question from a corpus of documents, with verbatim citations.',
  input: inputSchema,
  plan: researchPlan,
  run: (kit, input) => answerQuestion({ ...input, kit, quotes: new Map(), gaps: [] }),
  wrapUp: (kit, input, draft) => answerFromDraft(kit, input, draft),
})

async function answerQuestion(research: Research): Promise<ResearchOutput> {
  const { kit, question } = research
  kit.checkpoint(draftOf(research))
  const queries = await planQueries(research)
  const readings = await kit.each(queries, queries.length, (query, index) =>
    orGap(research, () => read(research, query, index)),
  )
  if (readings.every(isFailure)) throw readings[0]
  const notes = interleave(readings.map((reading) => (isFailure(reading) ? [] : reading)))
  const registry = await kit.tool('cite', 'cite', { corpusId: research.corpusId, notes: notes.slice(0, MAX_CITATIONS) })
  const { citations } = registry.value
  if (citations.length === 0) return notFound(research)
  kit.checkpoint(draftOf(research, citations))
  const { text = '' } = await kit.chat('write', {
    messages: writeMessages(question, registry.ref),
    maxTokens: WRITE_TOKENS,
  })
  const cited = citeAnswer(text, citations)
  // An answer that cites nothing is supported by nothing.
  if (isNotFound(text) || cited.citations.length === 0) return notFound(research)
  return { question, found: true, ...cited, gaps: research.gaps }
}

/** A stopped run's answer: from the quotes that it found until then, if there are any. */
async function answerFromDraft(kit: Kit, { question, corpusId }: ResearchInput, draft: unknown): Promise<unknown> {
  if (!isDraft(draft) || draft.citations.length === 0) return draft
  const notes = draft.citations.map(({ passageId, quote }) => ({ passage: passageId, quote }))
  const registry = await kit.tool('cite', 'cite', { corpusId, notes })
  const messages = writeMessages(question, registry.ref)
  const { text = '' } = await kit.chat('write', { messages, maxTokens: WRITE_TOKENS })
  const cited = citeAnswer(text, registry.value.citations)
  if (isNotFound(text) || cited.citations.length === 0) return draft
  const gaps = [...draft.gaps, 'the run was stopped before everything was read']
  return { question, found: true, ...cited, gaps, partial: true }
}

/** A checkpoint of this agent's own. */
function isDraft(draft: unknown): draft is ResearchOutput {
  return typeof draft === 'object' && draft !== null && 'citations' in draft && 'gaps' in draft
}

/** The question itself and queries for its aspects, at most `breadth` together. */
async function planQueries(research: Research): Promise<readonly string[]> {
  const { kit, question, breadth = DEFAULT_BREADTH } = research
  if (breadth === 1) return [question]
  const planned = await orGap(research, async () => {
    const messages = planMessages(question, breadth)
    const { object } = await kit.chat('plan', { messages, maxTokens: PLAN_TOKENS, schema: planSchema(breadth) })
    return object.queries
  })
  const queries = isFailure(planned) ? [] : planned.map((query) => query.slice(0, MAX_QUERY_LENGTH))
  return firstOfEach([question, ...queries.filter(hasText)], normalised).slice(0, breadth)
}

/** Searches, fetches and reads for one query. The notes are as the reader took them; those that hold go into the draft. */
async function read(research: Research, query: string, index: number): Promise<readonly Note[]> {
  const { kit, corpusId, question } = research
  const found = await kit.tool(`search/${index}`, 'search', { corpusId, query, limit: PASSAGES_PER_QUERY })
  const passageIds = found.value.hits.map((hit) => hit.id)
  if (passageIds.length === 0) return []
  const passages = await kit.tool(`fetch/${index}`, 'fetch', { corpusId, passageIds })
  const messages = readMessages(question, query, passages.ref)
  const { object } = await kit.chat(`read/${index}`, { messages, maxTokens: READ_TOKENS, schema: notesSchema })
  const notes = object.notes.filter(isUsable)
  if (notes.length === 0) return []
  const { value } = await kit.tool(`cite/${index}`, 'cite', { corpusId, notes })
  research.quotes.set(index, value.citations)
  kit.checkpoint(draftOf(research))
  return notes
}

/** Whether a note can be one: the model may have written anything. */
function isUsable({ passage, quote }: Note): boolean {
  return passage.length <= MAX_ID_LENGTH && utf8Length(quote) <= MAX_QUOTE_BYTES
}

type Failure = CallFailed | ToolFailed

function isFailure(result: unknown): result is Failure {
  return result instanceof CallFailed || result instanceof ToolFailed
}

/** What fails leaves a gap that is named in the output; the rest goes on. */
async function orGap<Result>(research: Research, work: () => Promise<Result>): Promise<Result | Failure> {
  try {
    return await work()
  } catch (error) {
    if (!isFailure(error)) throw error
    research.gaps.push(`${error.path}: ${error.reason}`)
    return error
  }
}

/** What is delivered when the run is stopped now: as many of the quotes found as a history takes. */
function draftOf(research: Research, registry?: readonly Citation[]): ResearchOutput {
  const citations = registry ?? quotesOf(research)
  const { question, gaps } = research
  const draft = (count: number): ResearchOutput => ({
    question,
    found: false,
    answer: null,
    citations: citations.slice(0, count),
    gaps: [...gaps],
    partial: true,
  })
  let count = Math.min(citations.length, MAX_CITATIONS)
  while (count > 0 && !fitsHistory(draft(count))) count -= 1
  return draft(count)
}

/** Of all readings, in the order of their queries, numbered anew. */
function quotesOf({ quotes }: Research): readonly Citation[] {
  const inOrder = [...quotes].toSorted(([left], [right]) => left - right).flatMap(([, each]) => each)
  return firstOfEach(inOrder, ({ passageId, quote }) => `${passageId} ${quote}`).map((each, index) => ({
    ...each,
    n: index + 1,
  }))
}

function notFound({ question, gaps }: Research): ResearchOutput {
  return { question, found: false, answer: 'not found', citations: [], gaps }
}

/** The first note of each reading, then the second of each, and so on: readers note the best first. Each note once. */
function interleave(readings: readonly (readonly Note[])[]): readonly Note[] {
  const longest = Math.max(...readings.map((notes) => notes.length))
  const ranked = Array.from({ length: longest }, (_, rank) => readings.flatMap((notes) => notes[rank] ?? [])).flat()
  return firstOfEach(ranked, (note) => `${note.passage} ${note.quote}`)
}

function firstOfEach<Item>(items: readonly Item[], keyOf: (item: Item) => string): readonly Item[] {
  const keys = items.map(keyOf)
  return items.filter((_, index) => keys.indexOf(keys[index] ?? '') === index)
}

function hasText(query: string): boolean {
  return query.trim() !== ''
}

function normalised(query: string): string {
  return query.trim().toLowerCase().replaceAll(/\s+/g, ' ')
}

function planSchema(maxQueries: number) {
  return {
    name: 'plan',
    schema: {
      type: 'object',
      properties: {
        queries: {
          type: 'array',
          description: 'search queries that together cover the question',
          minItems: 1,
          maxItems: maxQueries,
          items: { type: 'string' },
        },
      },
      required: ['queries'],
      additionalProperties: false,
    },
  } as const
}
