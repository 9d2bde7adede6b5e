import {
  newOrganisationSchema,
  organisationListSchema,
  organisationRequestSchema,
  organisationSchema,
  type OrganisationView,
} from '#contracts/api-organisation.ts'
import { pageQuerySchema } from '#contracts/api-page.ts'
import { Problem } from '#contracts/codes.ts'
import { USUAL_OPERATOR_SCOPES } from '#contracts/names.ts'
import { createKey, type Caller } from '#db/api-key.ts'
import { writeAudit } from '#db/audit.ts'
import type { Database } from '#db/schema.ts'
import { createOrganisation, getOrganisation, renameOrganisation, type Organisation } from '#db/organisation.ts'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { callerOfRequest, notFound } from './access.ts'
import type { Api, ApiDeps } from './api-deps.ts'
import { answerChange, answerPost } from './idempotency.ts'
import { shownOnce } from './key-routes.ts'
import { makeSecret } from './key-secret.ts'
import { pageOf } from './page.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Organisations']

/** Operators see and name their own organisation; the installation's make others. */
export function organisationRoutes(app: Api, deps: ApiDeps): void {
  const { db } = deps

  app.get(
    '/organisations',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'The organisation of the key',
        querystring: pageQuerySchema,
        response: { 200: organisationListSchema },
      },
    },
    async (request) => {
      const { organisationId } = callerOfRequest(request)
      const { limit, cursor } = request.query
      // There is one, so nothing stands on a page after it.
      const found = cursor === undefined ? [await theOrganisation(db, callerOfRequest(request), organisationId)] : []
      const { items } = pageOf(found, limit)
      return { organisations: items.map(viewOf), nextCursor: null }
    },
  )

  app.get(
    '/organisations/:id',
    {
      config: { access: 'operator', versioned: 'organisation' },
      schema: { tags, summary: 'An organisation', params: idParams, response: { 200: organisationSchema } },
    },
    async (request) => viewOf(await theOrganisation(db, callerOfRequest(request), request.params.id)),
  )

  organisationChangeRoutes(app, deps)
}

function organisationChangeRoutes(app: Api, { db, nowMs }: ApiDeps): void {
  app.post(
    '/organisations',
    {
      config: {
        access: 'operator',
        scope: 'installation',
        audit: 'organisation.create',
        problems: ['already_exists'],
      },
      schema: {
        tags,
        summary: 'Make an organisation with its first operator key',
        description:
          "For the installation's operators: a key with the scope `installation`. The secret is answered once. A repeated " +
          'request is answered without it.',
        body: organisationRequestSchema,
        response: { 201: newOrganisationSchema },
      },
    },
    (request, reply) =>
      answerPost(db, { request, reply, schema: newOrganisationSchema }, async (trx) => {
        const { keyId: madeBy } = callerOfRequest(request)
        const organisation = await createOrganisation(trx, { name: request.body.name, nowMs: nowMs() })
        if (!organisation) throw nameTaken(request.body.name)
        const { id: organisationId } = organisation
        const secret = makeSecret('op')
        const rights = { projectId: null, name: 'operator', scopes: USUAL_OPERATOR_SCOPES }
        const key = shownOnce(
          await createKey(trx, { ...rights, organisationId, secret, madeBy, nowMs: nowMs() }),
          secret,
        )
        const { id: target } = key.body
        // The new organisation reads it in a log of its own.
        const made = { organisationId, projectId: null, keyId: madeBy, target, before: null, after: key.audit?.after }
        await writeAudit(trx, { ...made, action: 'key.create' })
        const view = viewOf(organisation)
        return {
          status: 201,
          body: { ...view, operatorKey: key.body },
          kept: { ...view, operatorKey: key.kept ?? key.body },
          audit: { projectId: null, after: view },
        }
      }),
  )

  app.patch(
    '/organisations/:id',
    {
      config: {
        access: 'operator',
        versioned: 'organisation',
        audit: 'organisation.change',
        problems: ['already_exists'],
      },
      schema: {
        tags,
        summary: 'Give an organisation another name',
        params: idParams,
        body: organisationRequestSchema,
        response: { 200: organisationSchema },
      },
    },
    (request, reply) =>
      answerChange(db, { request, reply }, async (trx) => {
        const before = await theOrganisation(trx, callerOfRequest(request), request.params.id)
        const { name } = request.body
        const changed = await renameOrganisation(trx, { id: before.id, name })
        if (!changed) throw nameTaken(name)
        return { status: 200, body: viewOf(changed), audit: { projectId: null, before: viewOf(before) } }
      }),
  )
}

/** A foreign one is as unknown as one that is not there. */
async function theOrganisation(db: Kysely<Database>, caller: Caller, id: string): Promise<Organisation> {
  const found = id === caller.organisationId ? await getOrganisation(db, id) : undefined
  if (!found) throw notFound('organisation', id)
  return found
}

function nameTaken(name: string): Problem {
  return new Problem('already_exists', `There is an organisation named ${name} already.`, {
    remedy: 'Give it another name.',
  })
}

function viewOf({ id, name, createdAt, version }: Organisation): OrganisationView {
  return { id, name, createdAt: createdAt.toISOString(), version }
}
