import { defineAgent } from '#workflows/kit.ts'

/** Asks about rows with an activity for each: what `map` is measured beside. */
export const oneByOne = defineAgent({
  name: 'oneByOne',
  description: 'Asks one prompt about each of so many rows, one activity a row.',
  input: {
    type: 'object',
    properties: {
      rows: { type: 'integer', minimum: 1, maximum: 10_000 },
      concurrency: { type: 'integer', minimum: 1, maximum: 64 },
      head: { type: 'string' },
    },
    required: ['rows', 'concurrency', 'head'],
    additionalProperties: false,
  },
  async run(kit, { rows, concurrency, head }) {
    const numbers = Array.from({ length: rows }, (_, index) => index + 1)
    await kit.each(numbers, concurrency, (number) =>
      kit.chat(`rows/${number}`, {
        messages: [{ role: 'user', parts: [`Say whether ${head}-${number} is a harbour.`] }],
        maxTokens: 64,
      }),
    )
    return { rows }
  },
})
