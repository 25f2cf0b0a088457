"""Conversations with facts that matter, marked by whoever wrote them: written by hand, put together
at random by a seed. Shares nothing with what scores importance in the SDK.

A fact survives if its ``key`` can still be read. A third of the facts has no figure, no name and no
word that would give it away; a third of the talk around them has figures that do not matter.
"""

import random
from dataclasses import dataclass

from memtenant import Message

MESSAGES = 120


@dataclass(frozen=True, slots=True)
class Fact:
    """Somebody says ``text``; later answers need ``key``, which is part of it."""

    role: str
    text: str
    key: str


@dataclass(frozen=True, slots=True)
class Topic:
    facts: tuple[Fact, ...]
    talk: tuple[str, ...]
    """What is said about the topic and matters to no later answer."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A conversation, and what of it matters."""

    topic: str
    messages: tuple[Message, ...]
    keys: tuple[str, ...]


def conversations(seed: int, each: int) -> list[Labelled]:
    """So many of each topic."""
    chance = random.Random(seed)
    return [_made(chance, name, topic) for name, topic in TOPICS.items() for _ in range(each)]


def _made(chance: random.Random, name: str, topic: Topic) -> Labelled:
    places = sorted(chance.sample(range(MESSAGES - 10), len(topic.facts)))
    facts = dict(zip(places, chance.sample(topic.facts, len(topic.facts)), strict=True))
    messages = []
    for place in range(MESSAGES):
        fact = facts.get(place)
        role = fact.role if fact else ("human", "ai")[place % 2]
        pool = topic.talk if chance.random() < 0.65 else SMALL_TALK
        sentences = chance.sample(pool, chance.randint(1, 4))
        if fact:
            sentences = chance.sample(topic.talk, chance.randint(0, 2))
            sentences.insert(chance.randint(0, len(sentences)), fact.text)
        messages.append(Message(role, " ".join(sentences)))
    return Labelled(name, tuple(messages), tuple(fact.key for fact in topic.facts))


SMALL_TALK = (
    "Good morning, I hope the week treats you well so far.",
    "Thanks, that makes sense to me.",
    "Sorry for the slow reply, it has been one of those afternoons.",
    "Sure, take the time that you need for it.",
    "I was just reading back through what we wrote and it all looks fine.",
    "No rush at all from my side.",
    "That is a good question and I had been thinking along the same lines.",
    "Let me think about it for a moment while I finish this coffee.",
    "It rained the whole morning here, so I am glad to be at the desk.",
    "Great, that is about what I had in mind.",
    "I talked about it with a friend over lunch, and we had a good laugh.",
    "Could you say that once more in other words?",
    "Of course, here it is in other words, a little shorter than before.",
    "You explained that very well, thank you.",
    "I saw 3 squirrels on the balcony while I was waiting, which made my day.",
    "My train was 10 minutes late this morning, nothing unusual there.",
    "I have read about 40 pages on this already and my head is spinning.",
    "It feels like the 5th time that we come back to this, but never mind.",
)

TOPICS = {
    "travel": Topic(
        (
            Fact("human", "We will be four adults and one baby.", "one baby"),
            Fact("human", "My partner is allergic to shellfish.", "shellfish"),
            Fact("human", "We land in Porto on 14 May at 09:40.", "14 May"),
            Fact("ai", "I booked the Casa Azul, reference HX-20931.", "HX-20931"),
            Fact("human", "The whole trip has to stay below 3,800 euros.", "3,800"),
            Fact("human", "Grandmother uses a wheelchair.", "wheelchair"),
            Fact("ai", "The boat tour was cancelled by the operator.", "boat tour was cancelled"),
            Fact("human", "We would rather take the slow road along the coast.", "slow road"),
            Fact("human", "Breakfast is the one meal that everybody wants together.", "Breakfast"),
            Fact("ai", "The rental car has to be back by noon on the last day.", "by noon"),
            Fact("human", "Her name in the passport is spelled Katharina.", "Katharina"),
            Fact("human", "The little one sleeps only with the window open.", "window open"),
        ),
        (
            "The old town is lovely in spring and most people walk everywhere.",
            "Many travellers say that the north feels greener than they expected.",
            "There are several bakeries around the main square, each with its own pastry.",
            "The coast is windy, which surfers enjoy and umbrellas do not.",
            "A light jacket is usually enough in the evenings.",
            "Trams are slow but they show you a lot of the city on the way.",
            "Some guidebooks list 12 viewpoints, though two or three are plenty.",
            "In the summer the queues at the tower can be 90 minutes long, people say.",
            "The river has been used for trade for some 2,000 years.",
            "What would you like to see first when you arrive?",
            "Museums there tend to be small and pleasantly quiet.",
            "I find that a picnic in a garden beats most restaurants.",
            "The bridge appears on nearly every postcard.",
            "Locals often recommend to just get lost in the side streets.",
        ),
    ),
    "incident": Topic(
        (
            Fact("ai", "The root cause was an expired certificate on the gateway.", "expired cert"),
            Fact("human", "Node db-7 is read-only since the failover.", "db-7"),
            Fact("ai", "Error rate peaked at 37 % at 02:14 UTC.", "37 %"),
            Fact("human", "We decided to roll back to build 8841.", "8841"),
            Fact("human", "Priya takes the follow-up with the vendor.", "Priya"),
            Fact("ai", "Customers in the Nordics saw someone else's invoices.", "Nordics"),
            Fact(
                "human", "Never restart the scheduler before the queue is empty.", "queue is empty"
            ),
            Fact("human", "The pager was on silent.", "on silent"),
            Fact("ai", "The second replica had been behind since the weekend.", "second replica"),
            Fact("human", "Legal wants the timeline by Thursday noon.", "Thursday"),
            Fact("ai", "Ticket OPS-5512 holds the full log.", "OPS-5512"),
            Fact("human", "What helped in the end was turning the cache off.", "cache off"),
        ),
        (
            "Dashboards are green now and the graphs look like any other day.",
            "The alert channel was rather noisy, as it always is during such nights.",
            "I scrolled through the usual panels and saw what one usually sees there.",
            "These services talk to each other over the internal mesh.",
            "Most of the pods had been up for 41 days, which is fairly normal here.",
            "The runbook has a page about this kind of thing, last touched some years ago.",
            "I remember a similar night two winters ago.",
            "We look at about 200 panels in total, most of which nobody reads.",
            "Latency graphs always wobble a little around midnight.",
            "How did it look from your side?",
            "There was a good deal of typing going on in several channels at once.",
            "Someone should make more tea, said everybody in the call.",
            "The deploy pipeline ran as it does every evening.",
            "Traffic follows the usual curve with a dip at about 4 in the morning.",
        ),
    ),
    "house": Topic(
        (
            Fact("human", "Our bank lends us at most 412,000.", "412,000"),
            Fact("human", "The piano stays with the house.", "piano"),
            Fact("ai", "The survey found damp in the north wall.", "north wall"),
            Fact("human", "The sellers accept 395,500 if we close before July.", "395,500"),
            Fact("human", "We need a ground floor bedroom for my father.", "ground floor"),
            Fact("ai", "The notary's file number is N-77120.", "N-77120"),
            Fact("human", "The neighbours have a right of way over the yard.", "right of way"),
            Fact("human", "My wife cannot stand open kitchens.", "open kitchens"),
            Fact("ai", "The heating dates from 1987.", "1987"),
            Fact("human", "Viewing again on Saturday at 11:30.", "11:30"),
            Fact("human", "Mr Okafor speaks for the sellers.", "Okafor"),
            Fact("human", "The cat has to be able to go out.", "cat"),
        ),
        (
            "The street is quiet and lined with old lime trees.",
            "Houses of that age have a charm that new ones often lack.",
            "The light in the living room is especially nice in the late afternoon.",
            "There is a school nearby and a bakery around the corner.",
            "Prices in the area have moved a little, as they do everywhere.",
            "I walked past it yesterday, it looked just like in the pictures.",
            "People say that one looks at 20 houses before finding the right one.",
            "The previous owners painted everything in some shade of white.",
            "Gardens are more work than they seem, but also more joy.",
            "How many rooms did the one from last month have?",
            "The listing shows 34 photographs, half of them of the same corridor.",
            "A good carpenter can do wonders with such floors.",
            "The bus comes every 15 minutes or so.",
            "It is funny how quickly one starts to plan where the sofa would go.",
        ),
    ),
    "clinic": Topic(
        (
            Fact("human", "I take 20 mg of lisinopril in the morning.", "lisinopril"),
            Fact("human", "Penicillin gave me a rash as a child.", "Penicillin"),
            Fact("ai", "Your appointment is with Dr Lindqvist on 3 March.", "Lindqvist"),
            Fact("human", "My insurance number is K482-9931.", "K482-9931"),
            Fact("human", "Mornings do not work for me, I am on night shift.", "night shift"),
            Fact("ai", "Please come without breakfast.", "without breakfast"),
            Fact("human", "The pain is worst when I climb stairs.", "stairs"),
            Fact("human", "My mother had the same at my age.", "My mother"),
            Fact("ai", "The blood test showed a ferritin of 9.", "ferritin"),
            Fact("human", "I agreed with the nurse to stop the iron tablets.", "iron tablets"),
            Fact("human", "Call my sister if I do not pick up.", "my sister"),
            Fact("human", "The entrance on the hill side has no steps.", "hill side"),
        ),
        (
            "The waiting room has been renovated and is quite bright now.",
            "There is a small park behind the building where people sit.",
            "Most visits are shorter than one expects.",
            "The receptionists are friendly and usually have time for a word.",
            "Some patients bring a book, some look out of the window.",
            "I have walked by that building about a hundred times.",
            "Parking is a bit of a game of luck around there.",
            "The brochure has 16 pages and many pictures of fruit.",
            "How are you feeling about it all?",
            "It is normal to be a little nervous beforehand.",
            "The lift is slow, and it plays the same 2 songs.",
            "Drinking enough is generally a good idea in this weather.",
            "The corridor on the second floor smells of fresh paint.",
            "They changed the logo some time ago, I liked the old one.",
        ),
    ),
    "migration": Topic(
        (
            Fact("human", "The cut-over is on 21 September at 22:00.", "21 September"),
            Fact("ai", "Table orders_2019 has 48 million rows without a key.", "orders_2019"),
            Fact("human", "We agreed to keep the old cluster for two weeks.", "two weeks"),
            Fact("human", "The finance export must not change its column order.", "column order"),
            Fact("ai", "The dry run failed on umlauts in the customer table.", "umlauts"),
            Fact("human", "Tomas owns the DNS change.", "Tomas"),
            Fact("human", "The staging password lives in vault path kv/stg-44.", "kv/stg-44"),
            Fact("ai", "Writes stop for about eleven minutes.", "eleven minutes"),
            Fact("human", "Whoever is on call reads the mail from the old address.", "old address"),
            Fact("human", "The auditors come in the same week.", "auditors"),
            Fact("ai", "Replication lags when the nightly report runs.", "nightly report"),
            Fact("human", "Region Frankfurt is fixed, for contracts.", "Frankfurt"),
        ),
        (
            "The new cluster is a little faster in most of the charts.",
            "Everybody has an opinion on the naming of the hosts.",
            "The slides from the kick-off are still on the shared drive.",
            "We went through the usual list from top to bottom.",
            "Compression helps, as it does nearly everywhere.",
            "A few of the scripts are older than some of the people who run them.",
            "The wiki has about 60 pages on the old system.",
            "Tooling in this space has become much nicer over the years.",
            "What does the tool print when you run it with the verbose flag?",
            "It prints a long list of lines, most of which look the same.",
            "I let it run over lunch and it went through without any fuss.",
            "We have 14 tabs open between the two of us.",
            "The diagram on the whiteboard has grown into a piece of art.",
            "Batches of 500 look about as good as batches of 1000 in these plots.",
        ),
    ),
    "event": Topic(
        (
            Fact("human", "We expect 140 guests, 12 of them children.", "140 guests"),
            Fact("human", "No balloons, the venue forbids them.", "balloons"),
            Fact("ai", "The band Velvet Harbour confirmed for 1,900 pounds.", "Velvet Harbour"),
            Fact("human", "Table seven is for the people from the choir.", "Table seven"),
            Fact("human", "My uncle gives the first speech.", "My uncle"),
            Fact("ai", "The caterer needs the final number by 2 June.", "2 June"),
            Fact("human", "The keys are with the gardener.", "gardener"),
            Fact("human", "Music has to end at 23:30 because of the neighbours.", "23:30"),
            Fact("ai", "The deposit of 450 was paid to account GB-0071.", "GB-0071"),
            Fact("human", "Half of them eat no meat.", "no meat"),
            Fact("human", "If it rains we move into the barn.", "barn"),
            Fact("ai", "The florist mixed up the orders, ours is the white one.", "white one"),
        ),
        (
            "The meadow looks beautiful at this time of the year.",
            "Candles make every room look a bit warmer.",
            "I have a folder full of pictures from other people's parties.",
            "Invitations on thick paper simply feel nicer.",
            "Most guests remember the food and the music, they say.",
            "The colours on the screen are never quite those of the cloth.",
            "There were around 80 chairs in the hall the last time I was there.",
            "My playlist has 300 songs and I like perhaps twenty of them.",
            "What do you think of a guest book?",
            "A guest book is a nice idea that people tend to enjoy.",
            "The view from the terrace goes over the whole valley.",
            "We tried 6 kinds of cake on the weekend and were happy for days.",
            "Somebody always forgets a coat at the end.",
            "It is going to be a lovely day, I am sure of it.",
        ),
    ),
}
