import type { PlannedStep, Range } from '#contracts/agents.ts'

export const DEFAULT_BREADTH = 4
/** Passages one reading is given: what a model reads with care. */
export const PASSAGES_PER_QUERY = 6
/** What the writer is given at most. */
export const MAX_CITATIONS = 16
export const PLAN_TOKENS = 400
export const READ_TOKENS = 1_200
export const WRITE_TOKENS = 1_200

/** Of the instructions of any step, with the marks around messages; the longest and the shortest, rounded. */
const INSTRUCTION_TOKENS: Range = { least: 80, most: 400 }
/** Of a passage with its tags: documents are split at 1,200 characters. */
const PASSAGE_TOKENS: Range = { least: 50, most: 500 }
/** Few languages have more tokens than that in a text, and few texts less. */
const CHARACTERS_PER_TOKEN: Range = { least: 2, most: 5 }

/** What a research run does: it plans its searches, reads what each of them found, and writes. */
export function researchPlan(input: { readonly question: string; readonly breadth?: number }): readonly PlannedStep[] {
  const { question, breadth = DEFAULT_BREADTH } = input
  const planned = breadth === 1 ? 0 : 1
  const prompt = (passages: Range): Range => ({
    least:
      INSTRUCTION_TOKENS.least +
      Math.floor(question.length / CHARACTERS_PER_TOKEN.most) +
      passages.least * PASSAGE_TOKENS.least,
    most:
      INSTRUCTION_TOKENS.most +
      Math.ceil(question.length / CHARACTERS_PER_TOKEN.least) +
      passages.most * PASSAGE_TOKENS.most,
  })
  return [
    {
      path: 'plan',
      calls: { least: planned, most: planned },
      inputTokens: prompt({ least: 0, most: 0 }),
      outputTokens: { least: 10, most: PLAN_TOKENS },
    },
    {
      // A search that finds nothing is not read.
      path: 'read',
      calls: { least: 0, most: breadth },
      inputTokens: prompt({ least: 1, most: PASSAGES_PER_QUERY }),
      outputTokens: { least: 10, most: READ_TOKENS },
    },
    {
      path: 'write',
      calls: { least: 0, most: 1 },
      inputTokens: prompt({ least: 1, most: MAX_CITATIONS }),
      outputTokens: { least: 5, most: WRITE_TOKENS },
    },
  ]
}
