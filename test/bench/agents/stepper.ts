import { defineAgent } from '#workflows/kit.ts'

/** Of a prompt: about what a step of an agent sends when what it read stands behind references. */
const TEXT =
  'the harbour was dredged in spring and the mill stood idle until its owner paid what the county asked '.repeat(10)

/** Makes calls one after another, each a step of its own. */
export const stepper = defineAgent({
  name: 'stepper',
  description: 'Makes as many calls as it is told to, one after another.',
  input: {
    type: 'object',
    properties: { count: { type: 'integer', minimum: 1, maximum: 1_000 }, head: { type: 'string' } },
    required: ['count', 'head'],
    additionalProperties: false,
  },
  async run(kit, { count, head }) {
    for (let step = 0; step < count; step += 1) {
      await kit.chat(`step/${step}`, {
        messages: [{ role: 'user', parts: [`${head}, step ${step}: ${TEXT}`] }],
        maxTokens: 64,
      })
    }
    return { count }
  },
})
