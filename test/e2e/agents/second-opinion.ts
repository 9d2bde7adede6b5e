import { CallFailed, defineAgent, type Kit } from '#workflows/kit.ts'

const inputSchema = {
  type: 'object',
  properties: {
    question: { type: 'string', minLength: 1, maxLength: 2000 },
    opinions: { type: 'integer', minimum: 2, maximum: 5, default: 2 },
  },
  required: ['question'],
  additionalProperties: false,
} as const

const verdictSchema = {
  name: 'verdict',
  schema: {
    type: 'object',
    properties: { answer: { type: 'string' }, agree: { type: 'boolean' } },
    required: ['answer', 'agree'],
    additionalProperties: false,
  },
} as const

const OPINION_TOKENS = 300
const VERDICT_TOKENS = 400

/** Asks the same question several times, has the answers compared, and asks the owner when they differ. */
export const secondOpinion = defineAgent({
  name: 'secondOpinion',
  description: 'Answers a question twice or more often, and compares.',
  input: inputSchema,
  plan: ({ question, opinions = 2 }) => [
    {
      path: 'opinion',
      calls: { least: opinions, most: opinions },
      inputTokens: { least: 10, most: 50 + question.length },
      outputTokens: { least: 1, most: OPINION_TOKENS },
    },
    {
      path: 'verdict',
      calls: { least: 1, most: 1 },
      inputTokens: { least: 20, most: 100 + opinions * OPINION_TOKENS },
      outputTokens: { least: 10, most: VERDICT_TOKENS },
    },
  ],
  async run(kit, { question, opinions = 2 }) {
    const refs = await askAll(kit, question, opinions)
    kit.checkpoint({ opinions: refs.length })
    const { object } = await kit.chat('verdict', {
      messages: [
        { role: 'system', parts: ['Compare the answers. Reply with JSON.'] },
        { role: 'user', parts: [question, ...refs.flatMap((ref, index) => [`\n\nAnswer ${index + 1}: `, { ref }])] },
      ],
      maxTokens: VERDICT_TOKENS,
      schema: verdictSchema,
    })
    if (object.agree) return { answer: object.answer }
    const choice = await kit.ask('differ', {
      question: `The answers differ. Take this one? ${object.answer}`,
      choices: ['take it', 'leave it'],
      waitSeconds: 3600,
      otherwise: 'leave it',
    })
    return { answer: choice === 'take it' ? object.answer : null }
  },
  async wrapUp(kit, { question }, draft) {
    const { text = '' } = await kit.chat('short', {
      messages: [{ role: 'user', parts: [`Answer in one sentence: ${question}`] }],
      maxTokens: 60,
    })
    return { answer: text, after: draft }
  },
})

/** References to the answers; one that failed is left out, unless all did. */
async function askAll(kit: Kit, question: string, opinions: number): Promise<readonly string[]> {
  const numbers = Array.from({ length: opinions }, (_, index) => index)
  const answers = await kit.each(numbers, opinions, async (index) => {
    try {
      return await kit.chat(`opinion/${index}`, {
        messages: [{ role: 'user', parts: [`Opinion ${index + 1}. ${question}`] }],
        maxTokens: OPINION_TOKENS,
      })
    } catch (error) {
      if (error instanceof CallFailed) return error
      throw error
    }
  })
  const refs = answers.flatMap((answer) => (answer instanceof CallFailed ? [] : [answer.ref]))
  const [first] = answers
  if (refs.length === 0 && first instanceof CallFailed) throw first
  return refs
}
