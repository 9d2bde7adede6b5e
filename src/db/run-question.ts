import { Problem } from '#contracts/codes.ts'
import { choicesSchema } from '#contracts/stored.ts'
import type { Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** What a run has asked its owner, and nobody has answered. */
export interface OpenQuestion {
  /** Of the kit call that asks. */
  readonly path: string
  readonly text: string
  readonly choices: readonly string[] | null
  readonly askedAt: Date
}

/** The first one asked first. */
export async function openQuestions(
  db: Kysely<Database>,
  scope: Scope,
  runId: string,
): Promise<readonly OpenQuestion[]> {
  const rows = await db
    .selectFrom('run_question')
    .select(['path', 'question', 'choices', 'asked_at'])
    .where('run_id', '=', runId)
    .where('project_id', '=', scope.projectId)
    .where('answered_at', 'is', null)
    .orderBy('asked_at')
    .execute()
  return rows.map(({ path, question: text, choices, asked_at: askedAt }) => ({
    path,
    text,
    choices: choicesSchema.parse(choices),
    askedAt,
  }))
}

/**
 * The question that an answer is for: the one at a path, or the only one.
 *
 * @throws Problem `no_question`, `many_questions`
 */
export function theQuestion(open: readonly OpenQuestion[], path: string | undefined): OpenQuestion {
  const asked = path === undefined ? open : open.filter((question) => question.path === path)
  const [first, second] = asked
  const paths = open.map((question) => question.path)
  if (!first) {
    const where = path === undefined ? '' : ` at ${path}`
    throw new Problem('no_question', `The run has no open question${where}.`, {
      ...(paths.length > 0 && { remedy: `Questions are open at: ${paths.join(', ')}.` }),
      extra: { paths },
    })
  }
  if (!second) return first
  const remedy = `Give the path of one: ${paths.join(', ')}.`
  throw new Problem('many_questions', 'The run has more than one open question.', { remedy, extra: { paths } })
}
