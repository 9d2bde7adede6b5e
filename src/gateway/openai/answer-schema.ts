import type { ChatBody } from '#contracts/chat.ts'

type Schema = NonNullable<ChatBody['schema']>

/** The schema of an answer, as both of OpenAI's surfaces name it. Not strict unless that is asked for. */
export function toSchema(format: {
  readonly name: string
  readonly description?: string | null | undefined
  readonly schema: Schema['schema']
  readonly strict?: boolean | null | undefined
}): Schema {
  const { name, description, schema, strict } = format
  return { name, ...(description != null && { description }), schema, strict: strict ?? false }
}
