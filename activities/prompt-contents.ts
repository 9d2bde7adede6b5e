import type { KitMessage } from '#contracts/activities.ts'
import { Problem } from '#contracts/codes.ts'
import { passagesSchema } from '#contracts/passages.ts'
import { answerSchema } from '#contracts/stored.ts'
import type { Scope } from '#db/database.ts'
import { getPayload } from '#db/payload.ts'
import type { Database } from '#db/schema.ts'
import { invariant } from '#domain/invariant.ts'
import type { Kysely } from 'kysely'
import { refsOf, type PromptContent } from './render.ts'

/** Loads what messages refer to, and gives it by reference. */
export async function loadContents(
  db: Kysely<Database>,
  scope: Scope,
  messages: readonly KitMessage[],
): Promise<(ref: string) => PromptContent> {
  const contents = new Map<string, PromptContent>()
  for (const ref of refsOf(messages)) {
    const payload = await getPayload(db, scope, ref)
    invariant(payload, `a prompt refers to payload ${ref}, which does not exist`)
    if (payload.isErased) {
      throw new Problem('answer_not_stored', `A prompt refers to payload ${ref}, which is not stored any more.`)
    }
    contents.set(ref, toContent(payload.body))
  }
  return (ref) => {
    const content = contents.get(ref)
    invariant(content, `payload ${ref} was not loaded`)
    return content
  }
}

function toContent(body: unknown): PromptContent {
  const passages = passagesSchema.safeParse(body)
  if (passages.success) return { kind: 'passages', passages: passages.data.passages }
  return { kind: 'text', text: answerSchema.parse(body).text }
}
