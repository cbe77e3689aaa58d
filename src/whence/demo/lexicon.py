"""The words of the demo's grammar: plain lists, each a pool that the tasks of `grammar` draw from.

A noun is a pair (singular, plural), a verb (third person singular, plural). A city belongs to one state or country
only, so that every fact has one answer. Knows nothing of sentences or of tokens.
"""

words = str.split

MALE = words(
    "John Tom James Mark Paul David Peter Kevin Brian Robert Daniel Simon Adam Henry Jack Luke Frank George Oscar "
    "Victor"
)
FEMALE = words(
    "Mary Anna Sarah Emma Laura Alice Julia Karen Linda Susan Rachel Nancy Grace Helen Clara Diana Ruth Lucy Sophie "
    "Martha"
)
NAMES = MALE + FEMALE
MALE_ROLES = words("king actor waiter father brother uncle prince man boy")
FEMALE_ROLES = words("queen actress waitress mother sister aunt princess woman girl")
PLACES = words("store park school market office library station garden restaurant hospital museum beach")
OBJECTS = words("drink book ring ball letter gift key snack map camera pencil hat")
EVENTS = words("war siege festival voyage drought campaign project dispute journey strike expedition reign")

PEOPLE = [
    (word, word + "s")
    for word in words(
        "author pilot doctor farmer teacher guard lawyer singer dancer banker driver senator manager student customer "
        "officer minister surgeon visitor tailor painter hunter sailor parent clerk"
    )
]
THINGS = [
    (word, word + "s")
    for word in words(
        "picture table truck window chair lamp poster cabinet bottle basket painting bicycle rocket statue"
    )
]
TRANSITIVE = [
    (word, word.removesuffix("s"))
    for word in words("likes hates knows admires avoids follows helps blames visits calls")
]
INTRANSITIVE = [(word, word.removesuffix("s")) for word in words("walks sings laughs sleeps waits smiles works runs")]
BE = [("is", "are"), ("was", "were"), ("has been", "have been"), ("seems", "seem")]
ADVERBS = words("slowly quietly often today again outside alone loudly")
ADJECTIVES = words("tall happy old young tired rich busy famous clever calm")
THING_ADJECTIVES = words("large old clean broken heavy new green expensive")
PREPOSITIONS = words("near behind beside with")
THING_PREPOSITIONS = words("near behind beside under")

# state: its capital, then four other cities, the first of which is held out (`grammar.two_hop`).
STATES = {
    "Texas": words("Austin Dallas Houston Laredo Lubbock"),
    "California": words("Sacramento Oakland Fresno Anaheim Stockton"),
    "Illinois": words("Springfield Chicago Peoria Rockford Joliet"),
    "Georgia": words("Atlanta Savannah Macon Athens Marietta"),
    "Washington": words("Olympia Seattle Tacoma Spokane Everett"),
    "Oregon": words("Salem Portland Eugene Bend Medford"),
    "Florida": words("Tallahassee Miami Tampa Orlando Jacksonville"),
    "Ohio": words("Columbus Cleveland Cincinnati Toledo Dayton"),
    "Michigan": words("Lansing Detroit Flint Saginaw Dearborn"),
    "Tennessee": words("Nashville Memphis Knoxville Chattanooga Clarksville"),
    "Massachusetts": words("Boston Worcester Lowell Cambridge Quincy"),
    "Pennsylvania": words("Harrisburg Philadelphia Pittsburgh Scranton Allentown"),
    "Virginia": words("Richmond Norfolk Roanoke Alexandria Hampton"),
    "Colorado": words("Denver Boulder Pueblo Lakewood Greeley"),
    "Arizona": words("Phoenix Tucson Mesa Tempe Yuma"),
    "Alabama": words("Montgomery Birmingham Mobile Huntsville Tuscaloosa"),
    "Wisconsin": words("Madison Milwaukee Kenosha Racine Oshkosh"),
    "Indiana": words("Indianapolis Gary Evansville Muncie Carmel"),
    "Kansas": words("Topeka Wichita Lawrence Salina Olathe"),
    "Nebraska": words("Lincoln Omaha Kearney Fremont Bellevue"),
    "Mississippi": words("Jackson Biloxi Gulfport Tupelo Meridian"),
    "Alaska": words("Juneau Anchorage Fairbanks Sitka Nome"),
    "Hawaii": words("Honolulu Hilo Kailua Lahaina Waipahu"),
    "Montana": words("Helena Billings Missoula Bozeman Butte"),
    "Idaho": words("Boise Nampa Pocatello Lewiston Caldwell"),
    "Maine": words("Augusta Bangor Brunswick Saco Auburn"),
    "Vermont": words("Montpelier Burlington Rutland Barre Stowe"),
    "Connecticut": words("Hartford Bridgeport Stamford Waterbury Norwalk"),
    "Maryland": words("Annapolis Baltimore Frederick Bethesda Laurel"),
    "Kentucky": words("Frankfort Louisville Lexington Paducah Owensboro"),
}
# country: its capital, two other cities, its language.
COUNTRIES = {
    "France": words("Paris Lyon Marseille French"),
    "Germany": words("Berlin Munich Hamburg German"),
    "Italy": words("Rome Milan Naples Italian"),
    "Spain": words("Madrid Barcelona Seville Spanish"),
    "Japan": words("Tokyo Osaka Kyoto Japanese"),
    "China": words("Beijing Shanghai Wuhan Chinese"),
    "Russia": words("Moscow Kazan Omsk Russian"),
    "Greece": words("Athina Patras Larissa Greek"),
    "Portugal": words("Lisbon Porto Braga Portuguese"),
    "Turkey": words("Ankara Istanbul Izmir Turkish"),
    "Poland": words("Warsaw Krakow Gdansk Polish"),
    "Sweden": words("Stockholm Malmo Uppsala Swedish"),
    "Norway": words("Oslo Bergen Trondheim Norwegian"),
    "Finland": words("Helsinki Turku Tampere Finnish"),
    "Hungary": words("Budapest Debrecen Szeged Hungarian"),
    "Thailand": words("Bangkok Phuket Pattaya Thai"),
}

_OPPOSITES = words(
    "hot/cold big/small fast/slow up/down left/right open/closed early/late hard/soft light/dark rich/poor loud/quiet "
    "full/empty wet/dry high/low near/far first/last"
)
OPPOSITES = dict(pair.split("/") for pair in _OPPOSITES) | dict(pair.split("/")[::-1] for pair in _OPPOSITES)
NUMBERS = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen"
)
LIST_WORDS = sorted({*OBJECTS, *PLACES, *THING_ADJECTIVES, *ADJECTIVES, *(form for pair in THINGS for form in pair)})


def every_word() -> set[str]:
    """Return each word of each list once, whether or not a sample of sentences happens to use it."""
    plain = (NAMES, MALE_ROLES, FEMALE_ROLES, PLACES, OBJECTS, EVENTS, ADVERBS, ADJECTIVES, THING_ADJECTIVES)
    pairs = (PEOPLE, THINGS, TRANSITIVE, INTRANSITIVE, OPPOSITES.items())
    facts = (pair for table in (STATES, COUNTRIES) for pair in table.items())
    found = {word for pool in (*plain, PREPOSITIONS, THING_PREPOSITIONS, NUMBERS) for word in pool}
    found |= {word for pool in pairs for pair in pool for word in pair}
    return found | {word for place, towns in facts for word in (place, *towns)}
