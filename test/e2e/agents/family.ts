import { ChildFailed, defineAgent } from '#workflows/kit.ts'

/** Has children, one after another or all at once, and tells what became of each. */
export const family = defineAgent({
  name: 'family',
  description: 'Starts child runs.',
  input: {
    type: 'object',
    properties: {
      children: { type: 'integer', minimum: 1, maximum: 20 },
      steps: { type: 'integer', minimum: 1, maximum: 100 },
      budget: { type: 'string', description: 'What each is given, in USD; without it they spend what is left.' },
      agent: { type: 'string' },
      generations: { type: 'integer', minimum: 1, maximum: 10, description: 'Of families below this one.' },
    },
    required: ['children', 'steps'],
    additionalProperties: false,
  },
  async run(kit, input) {
    const { children, steps, budget, agent = 'steps', generations = 1 } = input
    const given =
      budget === undefined ? {} : { budget: [{ balanceClass: 'direct', currency: 'USD', amount: budget } as const] }
    const isLast = generations === 1
    const child = isLast
      ? { agent, input: { count: steps }, ...given }
      : { agent: 'family', input: { ...input, generations: generations - 1 }, ...given }
    const ends = await kit.each(
      Array.from({ length: children }, (_, index) => index),
      children,
      async (index) => {
        try {
          const { runId, state, output } = await kit.child(`child/${index}`, child)
          return { runId, state, output }
        } catch (error) {
          if (error instanceof ChildFailed) return { refused: error.reason, detail: error.message }
          throw error
        }
      },
    )
    return { ends, left: await kit.budget() }
  },
})
