import type { PlanFacts, PlannedStep } from '#contracts/agents.ts'
import { withoutValues } from '#domain/row-template.ts'
import { inputTokenBound, leastTokensOf, TOOLS_OVERHEAD } from '#domain/token-bound.ts'
import { defineAgent, type FromSchema, type Kit } from './kit.ts'
import { MAX_CONCURRENCY } from './kit/map.ts'

/** Rows between two looks at the length of the history: some two hundred events. */
const ROWS_PER_PART = 5_000
const MAX_OUTPUT_TOKENS = 32_000
const MAX_ROWS = 100_000

const inputSchema = {
  type: 'object',
  properties: {
    datasetId: { type: 'string', format: 'uuid', description: 'The rows.' },
    prompt: {
      type: 'string',
      minLength: 1,
      maxLength: 8000,
      description: 'Asked about each row: {{column}} is its value, {{row}} the whole row as JSON.',
    },
    system: { type: 'string', minLength: 1, maxLength: 4000, description: 'Instructions, the same or per row.' },
    maxTokens: { type: 'integer', minimum: 1, maximum: MAX_OUTPUT_TOKENS, description: 'Most output tokens of a row.' },
    schema: { type: 'object', description: 'A JSON Schema: each answer is an object of it.' },
    concurrency: {
      type: 'integer',
      minimum: 1,
      maximum: MAX_CONCURRENCY,
      default: 16,
      description: 'Most rows at once.',
    },
  },
  required: ['datasetId', 'prompt', 'maxTokens'],
  additionalProperties: false,
} as const

type MapInput = FromSchema<typeof inputSchema>

/** What a run over rows delivers: the answers themselves are read with GET /runs/{id}/rows. */
interface MapOutput {
  readonly rows: number
  readonly answered: number
  readonly failed: number
}

/** What an earlier history of the run carried over. */
interface Carried {
  readonly next: number
  readonly answered: number
  readonly failed: number
}

/** Asks one prompt about each row of a dataset. A row that fails is a row with an error; the others go on. */
export const map = defineAgent({
  name: 'map',
  description: 'Asks one prompt about each row of a dataset, and gives an answer, or an object, per row.',
  input: inputSchema,
  plan: planOf,
  run: mapAll,
})

async function mapAll(kit: Kit, input: MapInput): Promise<MapOutput> {
  const { datasetId, prompt, system, maxTokens, schema, concurrency = 16 } = input
  const messages = [
    ...(system === undefined ? [] : [{ role: 'system' as const, parts: [system] }]),
    { role: 'user' as const, parts: [prompt] },
  ]
  const format = isRecord(schema) ? { schema: { name: 'row', schema } } : {}
  let { next, answered, failed } = carriedOf(kit.resumed)
  for (;;) {
    const before = { answered, failed }
    const part = await kit.map('rows', {
      datasetId,
      messages,
      maxTokens,
      ...format,
      concurrency,
      from: next,
      most: ROWS_PER_PART,
      onProgress: (progress) => kit.checkpoint(sumOf(before, progress)),
    })
    const sum = sumOf(before, part)
    if (part.next === undefined) return sum
    ;({ answered, failed } = sum)
    next = part.next
    await kit.rollover({ next, answered, failed } satisfies Carried)
  }
}

function sumOf(before: Omit<Carried, 'next'>, part: MapOutput): MapOutput {
  return { rows: part.rows, answered: before.answered + part.answered, failed: before.failed + part.failed }
}

function carriedOf(state: unknown): Carried {
  const number = (name: string, otherwise: number): number => {
    const value = isRecord(state) ? state[name] : undefined
    return typeof value === 'number' ? value : otherwise
  }
  return { next: number('next', 1), answered: number('answered', 0), failed: number('failed', 0) }
}

/** Of a row whose values are all empty at least, and as large as the largest of the dataset at most. */
function planOf({ prompt, system, maxTokens, schema }: MapInput, { dataset }: PlanFacts): readonly PlannedStep[] {
  const texts = [prompt, ...(system === undefined ? [] : [system])]
  const placeholders = texts.reduce((sum, text) => sum + text.split('{{').length - 1, 0)
  const explained = schema === undefined ? 0 : TOOLS_OVERHEAD
  const fixed = inputTokenBound(texts, schema === undefined ? '' : JSON.stringify(schema)) + explained
  const most = fixed + placeholders * (dataset?.mostRowBytes ?? 0)
  const least = texts.reduce((sum, text) => sum + leastTokensOf(withoutValues(text)), 0)
  const calls = { least: dataset?.rows ?? 1, most: dataset?.rows ?? MAX_ROWS }
  return [{ path: 'rows', calls, inputTokens: { least, most }, outputTokens: { least: 1, most: maxTokens } }]
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
